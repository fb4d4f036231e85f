package main

import "sync"

// The StorageClasses that stories use. The chart makes one more for each, which binds at
// once and is for copies.
const (
	ext4Class = "csi-dmthin"
	xfsClass  = "csi-dmthin-xfs"
	loopClass = "csi-dmthin-loop" // of a pool that is small enough to be filled

	restores = "-restore"
)

// loopPool is for one story at a time.
var loopPool sync.Mutex

var stories = []story{
	{name: "an ext4 volume outlives its pod", needs: []need{class(ext4Class)}, tell: ext4Volume},
	{name: "an xfs volume outlives its pod", needs: []need{class(xfsClass)}, tell: xfsVolume},
	{name: "a block volume outlives its pod", needs: []need{class(ext4Class)}, tell: blockVolume},
	{name: "a volume is made before there is a pod", needs: []need{class(ext4Class + restores)}, tell: immediateVolume},
	{name: "two pods share a volume", needs: []need{class(ext4Class)}, tell: sharedVolume},
	{name: "a second pod waits for a volume that is for one", needs: []need{class(ext4Class)}, tell: volumeOfOnePod},
	{name: "a snapshot of a volume under write is restored to a larger one", needs: []need{snapshots, class(ext4Class + restores)}, tell: snapshotUnderWrite},
	{name: "restores follow their sources' nodes", needs: []need{snapshots, twoNodes, class(ext4Class)}, tell: restoresFollow},
	{name: "a restored and a new volume in one pod", needs: []need{snapshots, twoNodes, class(ext4Class), class(ext4Class + restores)}, tell: restoredAndNew},
	{name: "a clone goes its own way", needs: []need{class(xfsClass)}, tell: clone},
	{name: "volumes grow while they are used", needs: []need{class(ext4Class), class(xfsClass)}, tell: growth},
	{name: "volumes that have snapshots grow", needs: []need{snapshots, class(ext4Class + restores)}, tell: growthWithSnapshot},
	{name: "an expansion that cannot be is taken back", needs: []need{class(ext4Class)}, tell: expansionTakenBack},
	{name: "a full node is passed over", needs: []need{twoNodes, class(loopClass)}, pool: &loopPool, tell: fullNode},
	{name: "a claim larger than any node waits and says why", needs: []need{class(ext4Class)}, tell: tooLarge},
	{name: "a misspelt key of a class is named", needs: []need{class(ext4Class)}, tell: misspeltKey},
	{name: "a pool that no node has is named", needs: []need{class(ext4Class)}, tell: unknownPool},
	{name: "a snapshot that a full pool refuses can be deleted", needs: []need{snapshots, class(loopClass)}, pool: &loopPool, tell: snapshotOnFullPool},

	{name: "an agent is restarted while a pod writes", alone: true, needs: []need{class(ext4Class)}, tell: agentRestarted},
	{name: "the controller is killed while it makes twenty volumes", alone: true, needs: []need{class(ext4Class + restores)}, tell: controllerKilled},
	{name: "the scheduler's figures stay when the controller ends", alone: true, needs: []need{class(ext4Class)}, tell: controllerRestarted},
	{name: "the roomiest node loses its agent", alone: true, needs: []need{twoNodes, class(ext4Class), class(ext4Class + restores)}, tell: agentStopped},
	{name: "a node loses power", alone: true, needs: []need{variables("E2E_POWER_CUT", "E2E_BOOT"), class(ext4Class)}, tell: powerCut},
	{name: "the release is upgraded and rolled back while a pod writes", alone: true, needs: []need{chart, class(ext4Class)}, tell: upgraded},
	{name: "the release is uninstalled and installed while a pod writes", alone: true, needs: []need{chart, class(ext4Class)}, tell: reinstalled},
	{name: "without volumes nothing is left of the release", alone: true, needs: []need{chart, variables("E2E_EXEC")}, tell: uninstalled},
}
