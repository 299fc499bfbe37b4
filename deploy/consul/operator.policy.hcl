# For people: `cluster-lock status` and `step-down`. No bot gets this: who may write under request/ may have every leader hand
# over. (`release --force` writes the leader's key: that takes `secrets/management_token`.) set-up-acl puts in SESSION_NODE.
key_prefix "cluster-lock/" {
  policy = "read"
}
key_prefix "cluster-lock/request/" {
  policy = "write"
}
session "SESSION_NODE" {
  policy = "write"
}
