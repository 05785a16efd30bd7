"""What Prometheus is told. Labels take their values from what is served, never from what a client sends."""
