"""What this machine is and has: its GPU, the software for it, and the target that follows."""
