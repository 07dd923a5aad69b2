"""A financial-risk instruction corpus whose every answer can be checked by rule."""
