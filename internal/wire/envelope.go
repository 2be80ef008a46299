// Package wire holds the encodings that redrive writes to Redis.
package wire
