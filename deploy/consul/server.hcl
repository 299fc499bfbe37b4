# What the three servers have in common. Only names that Consul 1.8 and later releases both read: those call six of them
# deprecated, say so at the start, and read them. 1.8 does not read the new ones: README.md.
server           = true
bootstrap_expect = 3
retry_join       = ["consul-1", "consul-2", "consul-3"]
retry_interval   = "2s"

# Everything that leaves the container is TLS, and who comes in must show a certificate of our CA. Plain HTTP is for
# `docker compose exec` and for the health check, and listens inside of the container only.
ports {
  http  = 8500
  https = 8501
  dns   = -1
}
addresses {
  http  = "127.0.0.1"
  https = "0.0.0.0"
}
ca_file                = "/consul/tls/ca.crt"
cert_file              = "/consul/tls/node.crt"
key_file               = "/consul/tls/node.key"
verify_incoming        = true
verify_outgoing        = true
verify_server_hostname = true

acl {
  enabled                  = true
  default_policy           = "deny"
  enable_token_persistence = true
}

# For a fast take-over. The default multiplier, 5, is for slow hosts: with it an election takes 5 times as long.
performance {
  raft_multiplier = 1
}
# Consul refuses sessions with a shorter ttl (default 10s), and frees a lock after twice the ttl of a silent holder.
session_ttl_min = "5s"

# A server that ends is restarted, not gone: it stays a member, and its sessions stay.
leave_on_terminate   = false
disable_update_check = true
