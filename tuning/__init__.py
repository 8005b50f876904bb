"""Jobs that search for a good configuration: `fcnseg search`."""
