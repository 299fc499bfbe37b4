"""What drivers of servers share: addresses, certificates, and whether all endpoints are of one cluster."""
