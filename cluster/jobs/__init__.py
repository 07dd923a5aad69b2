"""Runs as jobs of a Ray cluster, through Ray's Jobs API.

    submitter                                        cluster
    configuration resolved and checked               driver's node: the package is unpacked
    package: our four packages, run.yaml,    ──►     its inputs are laid on the shared storage
    launch.yaml, the files the run reads             `run` starts from there
    log and status                           ◄──

What travels is listed, not excluded: a file goes along when the configuration names it and it is not below
`launch.storage`, the folder that every node has. On the cluster the inputs are copied to that storage before anything
reads them, so that every node finds them, and `run --resume` does after the job's own copy is gone.

Not done here: no cluster is started (`cluster.manifests`), and nothing is installed but what `launch.job.runtime_env`
asks Ray to install.
"""
