"""When, on which thread and in which batch each request runs."""
