"""Vision towers that Optimum exports. torch, transformers and Optimum are imported in `library`."""
