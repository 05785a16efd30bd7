"""The command line: the groups of commands, the flags of a configuration, and the commands of a run."""
