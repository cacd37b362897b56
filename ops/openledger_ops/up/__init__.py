"""`openledger up`: the whole platform on one machine, as processes under one supervisor.

Services, their modules and their ports come from the registry (`openledger_client.services`).
"""
