"""System checks that say which setting is wrong and what to write instead."""
