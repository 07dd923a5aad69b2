"""The commands of the command line, by what they are about: training, clusters, reading what a run left."""
