"""The Console: pages on which users of an account make its keys, watch them, and end them.

`app` has the table of what there is and who may; each page is a function of a `Visit`, in the module of its subject.
The use cases are those that the key API and the command line share.
"""
