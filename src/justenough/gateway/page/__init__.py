"""The gateway's page: a playground and a live status, in files beside this one, served under a strict policy."""
