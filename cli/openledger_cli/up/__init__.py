"""`openledger up`: the whole platform on one machine, as processes under one supervisor."""
