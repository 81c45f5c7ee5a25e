"""The arguments, options and help texts of the subcommands, by family.

Each function imports what implements it when it is called, so that a command starts quickly.
"""
