"""Entry points that Ray runs as jobs, and the files by which the service and a job talk."""
