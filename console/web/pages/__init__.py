"""The pages, one noun each; every module has `routes`."""
