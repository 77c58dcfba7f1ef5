"""What passes between processes: messages in JSON, anonymous memory, and how a child is tied to its parent."""
