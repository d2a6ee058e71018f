"""What receiving is compared with: receivers written with other tools, as their documentation advises."""
