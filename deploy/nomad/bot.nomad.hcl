# Two bots in Nomad 1.6 or later, with the Consul that is there as the backend. README.md beside this file says what to make
# first: a Nomad variable with the secrets.
variable "image" {
  description = "Of your own bot: deploy/README.md, Your own bot."
  type        = string
}

variable "app" {
  description = "MODULE:NAME of the Dispatcher in that image."
  type        = string
  default     = "sample_bot.app:dispatcher"
}

variable "consul" {
  description = "Consul's agents or servers, as the containers reach them, with commas."
  type        = string
}

variable "session_node" {
  description = "The node that sessions belong to, which deploy/consul/set-up-acl registers."
  type        = string
  default     = "cluster-lock"
}

job "cluster-lock-bot" {
  type = "service"

  group "bot" {
    # One leads, one stands by.
    count = 2

    spread {
      attribute = "${node.unique.id}"
    }

    update {
      # A new one is healthy, which is to say that it could take over, before an old one is told to end: the leader always
      # has somebody to hand over to, and hands over before it ends.
      canary           = 1
      auto_promote     = true
      auto_revert      = true
      max_parallel     = 1
      health_check     = "checks"
      min_healthy_time = "5s"
      healthy_deadline = "2m"
    }

    restart {
      attempts = 10
      interval = "10m"
      delay    = "5s"
      mode     = "delay"
    }

    network {
      port "health" {
        to = 9876
      }
    }

    # In Consul, for Prometheus' consul_sd_configs.
    service {
      name = "cluster-lock-bot"
      port = "health"
      tags = ["metrics"]

      check {
        name     = "leads well, or could take over"
        type     = "http"
        path     = "/readyz"
        interval = "5s"
        timeout  = "3s"
      }

      check {
        name     = "lives"
        type     = "http"
        path     = "/livez"
        interval = "10s"
        timeout  = "3s"

        check_restart {
          limit = 3
          grace = "90s"
        }
      }
    }

    task "bot" {
      driver = "docker"
      # Above lock.drain + lock.cancel_grace (8 s), with room for the hand-over.
      kill_timeout = "20s"
      kill_signal  = "SIGTERM"

      config {
        image = var.image
        args  = ["start", "--app", var.app]
        ports = ["health"]
        # As process 1 a bot that is frozen could not be ended by the kernel at its deadline, only when it wakes.
        init            = true
        readonly_rootfs = true
        cap_drop        = ["all"]
        security_opt    = ["no-new-privileges"]
        pids_limit      = 512

        mount {
          type   = "tmpfs"
          target = "/tmp"
          tmpfs_options {
            size = 67108864
          }
        }
      }

      env {
        CLUSTER_LOCK_CONFIG = "/local/config.yaml"
        # The name of this process slot: two allocations are never one. `bot-`: as deploy/consul/set-up-acl allows.
        CLUSTER_LOCK_INSTANCE = "bot-${NOMAD_SHORT_ALLOC_ID}"
        # In the container's own network; Nomad gives it a port of the host.
        CLUSTER_LOCK_HEALTH = "0.0.0.0:9876"
      }

      # `noop`: for a secret that changes Nomad would start all instances anew at the same time. Certificates are read again
      # as they are; README.md says what a token takes.
      template {
        destination = "local/config.yaml"
        change_mode = "noop"
        data        = <<-EOT
          backend: consul
          consul:
            url: ${var.consul}
            session_node: ${var.session_node}
            token_file: /secrets/consul_token
            ca: /secrets/ca.crt
            cert: /secrets/bot.crt
            key: /secrets/bot.key
          telegram:
            token_file: /secrets/telegram_token
        EOT
      }

      template {
        destination = "secrets/telegram_token"
        data        = "{{ with nomadVar \"nomad/jobs/cluster-lock-bot\" }}{{ .telegram_token }}{{ end }}"
        perms       = "0400"
        uid         = 10001
        gid         = 10001
        change_mode = "noop"
      }

      template {
        destination = "secrets/consul_token"
        data        = "{{ with nomadVar \"nomad/jobs/cluster-lock-bot\" }}{{ .consul_token }}{{ end }}"
        perms       = "0400"
        uid         = 10001
        gid         = 10001
        change_mode = "noop"
      }

      template {
        destination = "secrets/ca.crt"
        data        = "{{ with nomadVar \"nomad/jobs/cluster-lock-bot\" }}{{ .ca_crt }}{{ end }}"
        change_mode = "noop"
      }

      template {
        destination = "secrets/bot.crt"
        data        = "{{ with nomadVar \"nomad/jobs/cluster-lock-bot\" }}{{ .bot_crt }}{{ end }}"
        change_mode = "noop"
      }

      template {
        destination = "secrets/bot.key"
        data        = "{{ with nomadVar \"nomad/jobs/cluster-lock-bot\" }}{{ .bot_key }}{{ end }}"
        perms       = "0400"
        uid         = 10001
        gid         = 10001
        change_mode = "noop"
      }

      resources {
        # A share, not a limit: a bot that is throttled renews late.
        cpu    = 100
        memory = 512
      }
    }
  }
}
