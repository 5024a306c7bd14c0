"""The same steps on engines that a user would take instead, in environments of their own."""
