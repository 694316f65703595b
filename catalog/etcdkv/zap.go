package etcdkv

import (
	"context"
	"errors"
	"log/slog"
	"slices"

	"go.uber.org/zap"
	"go.uber.org/zap/zapcore"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
)

// Zap returns a logger of the kind that etcd's code wants, which writes to a
// logger of ours. etcd is talkative: what it calls information is debugging
// to an operator of Platter, and so it arrives one level lower. A nil logger
// is silence.
func Zap(logger *slog.Logger) *zap.Logger {
	if logger == nil {
		return zap.NewNop()
	}
	return zap.New(core{logger.Handler().WithGroup("etcd")})
}

// A core is where zap's entries go.
type core struct{ handler slog.Handler }

// Enabled tells whether anybody wants entries of this level.
func (c core) Enabled(level zapcore.Level) bool {
	return c.handler.Enabled(context.Background(), slogLevel(level))
}

// With returns a core whose entries have these fields.
func (c core) With(fields []zapcore.Field) zapcore.Core {
	return core{c.handler.WithAttrs(attrs(fields))}
}

// Check adds the core to the takers of an entry.
func (c core) Check(e zapcore.Entry, ce *zapcore.CheckedEntry) *zapcore.CheckedEntry {
	if !c.Enabled(e.Level) {
		return ce
	}
	return ce.AddCore(e, c)
}

// Write passes an entry on.
func (c core) Write(e zapcore.Entry, fields []zapcore.Field) error {
	level := slogLevel(e.Level)
	if slices.ContainsFunc(fields, givenUp) {
		level = slog.LevelDebug
		if !c.handler.Enabled(context.Background(), level) {
			return nil
		}
	}
	r := slog.NewRecord(e.Time, level, "etcd: "+e.Message, 0)
	r.AddAttrs(attrs(fields)...)
	return c.handler.Handle(context.Background(), r)
}

// givenUp tells whether a field is the error of a call that its caller gave
// up: a client of ours that hangs up is nothing to warn of.
func givenUp(f zapcore.Field) bool {
	err, ok := f.Interface.(error)
	return ok && f.Type == zapcore.ErrorType && (status.Code(err) == codes.Canceled || errors.Is(err, context.Canceled))
}

// Sync has nothing to do.
func (c core) Sync() error { return nil }

func attrs(fields []zapcore.Field) []slog.Attr {
	enc := zapcore.NewMapObjectEncoder()
	for _, f := range fields {
		f.AddTo(enc)
	}
	out := make([]slog.Attr, 0, len(enc.Fields))
	for k, v := range enc.Fields {
		out = append(out, slog.Any(k, v))
	}
	return out
}

func slogLevel(level zapcore.Level) slog.Level {
	switch {
	case level >= zapcore.ErrorLevel:
		return slog.LevelError
	case level >= zapcore.WarnLevel:
		return slog.LevelWarn
	}
	return slog.LevelDebug
}
