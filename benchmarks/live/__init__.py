"""What a live session costs: events a second, the lag of a window, and what idle sessions take."""
