"""The checks of an audit, and how their findings count."""
