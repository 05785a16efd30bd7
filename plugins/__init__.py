"""What comes through the door (`spikeserve.models.door`): each folder is a plugin."""
