"""Small spiking networks with the spikes that their own frameworks give, to check any executor against."""
