# A client agent: what compose.agents.yaml runs beside each bot.
retry_join     = ["consul-1", "consul-2", "consul-3"]
retry_interval = "2s"

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
disable_update_check = true
