"""A cluster for a launch, as files: KubeRay's RayCluster and RayJob, and the YAML of `ray up`.

Pure functions from LaunchConfig: nothing is contacted and nothing is read. A group of nodes carries the labels of
`launch.cluster.groups`, which are Ray's node labels: what selects nodes by label selects from these. Secrets are named,
never written out.

Not done here: nothing is applied (`kubectl apply -f`, `ray up`), and no image is built (see the Dockerfile).
"""
