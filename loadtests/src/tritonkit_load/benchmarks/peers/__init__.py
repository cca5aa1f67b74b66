"""The servers that a team would otherwise pick: installed, configured and served for `make compare`."""
