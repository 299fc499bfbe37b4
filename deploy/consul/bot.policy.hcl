# All that one bot needs, and no more. set-up-acl puts in the words in capitals:
#   BOT_ID        the bot's number, the part of its token before the colon
#   INSTANCES     how the names of its instances begin (`instance` in its settings): here the host names of compose.yaml
#   SESSION_NODE  the node that its sessions belong to (`consul.session_node`)
# Keys: `prefix` of the bot's config.yaml; change both together.
key_prefix "cluster-lock/" {
  policy = "read"
}
key "cluster-lock/leader/telegram/BOT_ID" {
  policy = "write"
}
key "cluster-lock/invite/telegram/BOT_ID" {
  policy = "write"
}
key "cluster-lock/reply/telegram/BOT_ID" {
  policy = "write"
}
key_prefix "cluster-lock/standby/INSTANCES" {
  policy = "write"
}

# A session of that node alone: with `session_prefix ""` it could destroy those of every other service.
session "SESSION_NODE" {
  policy = "write"
}

# What `cluster-lock doctor` tries: a lock that is nobody's, and is deleted again.
key_prefix "cluster-lock/leader/doctor/" {
  policy = "write"
}
key_prefix "cluster-lock/standby/doctor/" {
  policy = "write"
}
key_prefix "cluster-lock/invite/doctor/" {
  policy = "write"
}
key_prefix "cluster-lock/reply/doctor/" {
  policy = "write"
}
