# What Consul's own agents need to register themselves. No bot gets this.
node_prefix "" {
  policy = "write"
}
service_prefix "" {
  policy = "read"
}
