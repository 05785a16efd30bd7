"""The pages that people read, and the programs that make them: a site, the list of settings, the pictures."""
