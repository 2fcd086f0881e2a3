"""What differs between two locks besides the versions of packages, as data and as lines for people."""
