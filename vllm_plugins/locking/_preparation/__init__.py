"""From the plugins and overrides of a manifest to what a resolver takes: fetched, built, or found in the base."""
