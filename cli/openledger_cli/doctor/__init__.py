"""What `openledger doctor` looks at: the platform's public doors, and nothing behind them."""
