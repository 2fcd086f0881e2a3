"""The metadata of distributions as installers lay it out: in directories, in eggs and in archives on the path."""
