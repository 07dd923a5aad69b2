"""The work: data, stream, model, worker loop, checkpoint, export. Knows nothing of evaluation or topology."""
