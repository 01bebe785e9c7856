"""What happens to a token: it is read, aligned, decided on and written."""
