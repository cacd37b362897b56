"""What every OpenLedger service needs and none owns."""
