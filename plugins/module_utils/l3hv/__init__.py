"""Code of l3hv's modules. Ansible sends each module with the files of this package that it imports."""
