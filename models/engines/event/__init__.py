"""The `event` engine: spikes travel as events, and work is done for each of them."""
