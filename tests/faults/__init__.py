"""What production does to a plugin manager: kills, crowds, full disks, broken networks, hostile input (``tox -e faults``)."""
