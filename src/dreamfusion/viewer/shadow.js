// A soft dark patch on the ground, so that things stand and do not float. It belongs to the stage, not to the mesh.

const SHADOW_PIXELS = 256;
const SHADOW_DARKNESS = 0.35;

// The outline of the meshes from straight above, blurred, on a square at the foot of their box.
function groundShadow(meshes, box) {
  const middle = box.getCenter(new three.Vector3());
  const side = 1.6 * Math.max(box.max.x - box.min.x, box.max.z - box.min.z);
  const picture = document.createElement("canvas");
  picture.width = picture.height = SHADOW_PIXELS;
  const pen = picture.getContext("2d");
  pen.shadowColor = "black";
  pen.shadowBlur = 0.12 * SHADOW_PIXELS;
  pen.shadowOffsetX = 2 * SHADOW_PIXELS; // the outline itself lies beside the picture
  const toPixels = ({ x, z }) => [(x - middle.x) / side - 1.5, (z - middle.z) / side + 0.5].map((at) => at * SHADOW_PIXELS);
  pen.fill(outline(meshes, toPixels));
  const map = new three.CanvasTexture(picture);
  const paint = { map, color: "black", transparent: true, opacity: SHADOW_DARKNESS, depthWrite: false };
  const square = new three.Mesh(new three.PlaneGeometry(side, side), new three.MeshBasicMaterial(paint));
  square.rotation.x = -Math.PI / 2;
  square.position.set(middle.x, box.min.y, middle.z);
  return square;
}

function outline(meshes, toPixels) {
  const path = new Path2D();
  const corners = [0, 1, 2].map(() => new three.Vector3());
  for (const { geometry, matrixWorld } of meshes) {
    const { index, attributes } = geometry;
    const count = (index ?? attributes.position).count;
    for (let i = 0; i < count; i += 3) {
      corners.forEach((corner, k) => {
        corner.fromBufferAttribute(attributes.position, index ? index.getX(i + k) : i + k).applyMatrix4(matrixWorld);
      });
      const [a, b, c] = corners.map(toPixels);
      // Faces that look down run the other way round, and would undo what those above them fill.
      if ((b[0] - a[0]) * (c[1] - a[1]) < (b[1] - a[1]) * (c[0] - a[0])) path.moveTo(...a), path.lineTo(...b), path.lineTo(...c);
    }
  }
  return path;
}
