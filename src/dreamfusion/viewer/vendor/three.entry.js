// The parts of three.js that stage.js and the studio use; README.md says how three.min.js is made from them.
export { AnimationMixer, Box3, CanvasTexture, Mesh, MeshBasicMaterial, PerspectiveCamera, PlaneGeometry, ShaderMaterial } from "three";
export { Vector3, WebGLRenderer } from "three";
export { OrbitControls } from "three/addons/controls/OrbitControls.js";
export { GLTFLoader } from "three/addons/loaders/GLTFLoader.js";
