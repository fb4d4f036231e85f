package deviceset

// LastTime is where a pool's snapshots end.
const LastTime = lastTime

// SetTime makes the pool one that has had so many snapshots.
func (s *DeviceSet) SetTime(value uint32) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.time = timeCount{known: true, value: value}
}
