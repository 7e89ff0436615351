"""What vendors' clients say and are told: calls of each wire read, translated, rendered, streamed again."""
