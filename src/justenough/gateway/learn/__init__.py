"""What the gateway learns from its own traffic: audits, drift, recalibration."""
