"""`openledger doctor`: checks a platform from outside, by its public endpoints, and says what to do."""
