"""What leaves the machine by itself: kept on the disk first, sent until it has been taken."""
