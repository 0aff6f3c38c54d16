//! POSIX operations composed of namespace, read and write.
